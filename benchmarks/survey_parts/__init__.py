"""Parts of the survey: how models are built tiny, what they are fed, how they are traced, and the page written."""
