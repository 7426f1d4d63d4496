"""What is on disk: sound, codes and melodies."""
