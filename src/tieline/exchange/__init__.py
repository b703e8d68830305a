"""The running platform: use-cases over a view, and the events that follow. Pure and synchronous."""
