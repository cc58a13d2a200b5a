"""Images as users build them, from the Containerfiles in images/: built, described, and looked into."""
