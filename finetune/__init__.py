"""Fine-tune one base model with LoRA from a run specification; leaves queues, money and serving to its callers."""
