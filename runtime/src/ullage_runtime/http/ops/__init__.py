"""What operators of the pod ask: is it alive, is it ready, what does it count."""
