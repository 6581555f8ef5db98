"""Functions that no file of the project declares: each environment of one is a runtime process of its own.

    worker (one thread)                                      runtime process
    engine ── invoke ── HostedEnvironment ── Server ══ http ══ awslambdaric | bootstrap | node
                              │                └───── pipe ── what it prints, and frames of its log
                              └── Process: started, timed, killed with all its group, its exit told

The worker is the server of the Runtime API: while an invocation runs it waits in one `poll` for all that can happen,
and between two it serves nobody, so that the runtime waits as it does where it is frozen.
"""
