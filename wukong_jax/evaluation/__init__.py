"""What a model is judged by: streaming metrics on the device, exact AUC and gAUC on the host."""
