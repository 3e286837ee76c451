"""The FastAPI router of h5grove, as its example application includes it."""

import os

from fastapi import FastAPI
from h5grove.fastapi_utils import router, settings

settings.base_dir = os.environ["PEER_DATA"]
app = FastAPI()
app.include_router(router)
