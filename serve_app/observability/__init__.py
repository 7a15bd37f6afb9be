"""What does the service tell those who run it?"""
