"""Other ways to bring the same records into a table, each as a process of its own."""
