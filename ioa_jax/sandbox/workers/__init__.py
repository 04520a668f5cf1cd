"""What runs in the sandbox's own processes, by an interpreter that may not have this package.

So these modules import the standard library and one another alone, relatively; the sandbox copies
them to a folder that the programs' user can read.
"""
