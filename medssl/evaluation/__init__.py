"""How good each arm is on the test patients, and how sure that is: metrics, patient-level bootstrap, comparison.

Nothing here reads a file or chooses a model: predictions come in as a table, numbers and sentences go out.
"""
