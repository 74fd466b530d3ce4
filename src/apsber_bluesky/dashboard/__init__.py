"""The live web page: scans, slices, frame books, quality and stages, pushed by the server."""
