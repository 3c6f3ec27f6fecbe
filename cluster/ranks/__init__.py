"""How the processes of one instance compute together: rank 0 says what each step is, all compute it, rank 0 samples."""
