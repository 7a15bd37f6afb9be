"""What does a conversation remember?"""
