"""Its derivatives: three bilinear primitives that are each other's gradients."""
