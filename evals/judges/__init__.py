"""Local, versioned scorers of text: each with its own errors, which what it says is corrected for."""
