"""Pictures of ``plan``. They need matplotlib, which is not among bandweave's own requirements."""
