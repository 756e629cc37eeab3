"""What trained weights say."""
