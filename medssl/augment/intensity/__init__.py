"""What acquisition, display and storage do to the values of an image, one family a file; `medssl.augment.views` puts them in their order."""
