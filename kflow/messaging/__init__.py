"""The engine of SNS: topics, who subscribes to them, which messages pass a filter, and what is delivered."""
