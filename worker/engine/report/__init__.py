"""The evidence: certificate, environment, report.json and report.html."""
