"""Moves: the only Faust and aiokafka. From the input topics to the database, and out again."""
