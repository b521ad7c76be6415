"""What criteria and repairs work out about a network; nothing here is an option."""
