"""Programs that hold one loaded model each and measure an answer whenever they are asked."""
