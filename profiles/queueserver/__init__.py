"""Settings of queueserver's RE manager, and who may do what."""
