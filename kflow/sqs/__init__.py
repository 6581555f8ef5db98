"""Amazon SQS: standard and FIFO queues, their messages, dead letters and moves. Engines, told the time."""
