-- The generation grows with every change of the spec, so that no token is the one before.
obj.spec.rolloutToken = "restart-" .. obj.metadata.generation
return obj
