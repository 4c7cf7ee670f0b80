"""What uvicorn has under `uvicorn.protocols`; the protocols themselves are C."""
