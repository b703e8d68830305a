"""Network: topology, traffic engineering, the calendar and distances. Pure: arrays and structs in, plans out."""
