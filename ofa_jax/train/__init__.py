"""Training by progressive shrinking: phases, losses, the step and the loop."""
