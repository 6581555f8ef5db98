"""Programs that run a function and speak the Runtime API: started as processes, never imported by kflow."""
