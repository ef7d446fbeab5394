"""Around the reference: terminal output, doctor, estimate, bench, GPU report, explorer, exercises."""
