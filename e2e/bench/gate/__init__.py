"""How often a gate promotes a bad student, and a good one: rules compared, and the tables of docs/gate.md."""
