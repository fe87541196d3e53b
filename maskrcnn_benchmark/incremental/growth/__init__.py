"""Growth: class weights of new classes are appended to the classifier of the previous phase.

Writes `init.pth` in the folder of a step. Imports `plan`.
"""
