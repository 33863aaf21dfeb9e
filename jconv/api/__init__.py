"""What the user types: arguments checked and completed, every error raised, then one primitive bound."""
