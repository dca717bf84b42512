"""The convolutional part: a ticket planted into a convnet."""
