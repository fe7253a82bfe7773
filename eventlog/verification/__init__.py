"""Does the log still say what it said when it was signed?"""
