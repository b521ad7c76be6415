"""What criteria and repairs read off a network, each in one place because several of them do."""
