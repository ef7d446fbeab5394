"""Around the reference: doctor, bench, GPU report, explorer, exercises."""
