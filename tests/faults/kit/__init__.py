"""The fault kit: a supervisor of the real platform, a proxy that spoils what passes it, clients that check all answers.

The model is TigerBeetle's Vortex: the processes are the real ones, the faults are scripted, and a seed names a run.
"""
