"""Training: one loop for baseline and fine-tune, on data that lives on the device."""
