"""Following: what an exchange process does while another one writes.

::

    request --> Front --> Leading    the application of the exchange, as in a single process
                     \\-> Following  operation in LOCAL? answer from the store and the tail of the log, `Tieline-As-Of`
                                      \\-> refused here? --+
                                     everything else -----+--> Forwarder --> the leader, as `Tieline-Forwarded`

`Front` is the application of a process for its whole life; its part changes when the leader does. What operators see of
it is in docs/operate/failover.md.
"""
