"""What things are: frozen structs, their units and their words. Nothing here reads a clock, a file or a socket."""
