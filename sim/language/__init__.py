"""Several goals on the table and an instruction that names one: the scene, its sentences, questions about it."""
