"""The convolutional part: a ticket planted in a convnet."""
