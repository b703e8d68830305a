"""Tieline (联络线): one open network of compute that different people own."""

__version__ = "0.1.0"
