"""Reading raw files block by block in bounded memory."""
