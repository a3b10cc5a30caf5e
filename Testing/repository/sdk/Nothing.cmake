# Slicer loads its own modules here; the stand-in has none.
