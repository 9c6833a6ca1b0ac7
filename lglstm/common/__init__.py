"""What every other package may import: errors, files, labels, images, preprocessing."""
