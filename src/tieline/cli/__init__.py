"""Command line: every verb of Tieline. A verb's module is imported when the verb is used, never before."""
