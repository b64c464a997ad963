"""Records of the database as answers: texts rendered, evidence laid out."""
